"""The command line: the only place that reads the environment, handles signals, prints and exits."""
