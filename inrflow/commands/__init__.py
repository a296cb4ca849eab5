"""One module for each command of the command line, each with `run(arguments) -> exit code`."""
