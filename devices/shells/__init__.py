"""Ways to reach a device: a shell and its files, here, over ssh or adb; what is kept there, and who has it now."""
