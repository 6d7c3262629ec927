"""The camera's web page: a server in a thread of its own, its viewers, and who may be one."""
