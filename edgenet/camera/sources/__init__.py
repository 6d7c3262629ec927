"""Where frames come from: files, cameras that are plugged in or have an address, a browser's."""
