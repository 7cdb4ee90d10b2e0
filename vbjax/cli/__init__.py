"""The shell command `vbjax`."""
