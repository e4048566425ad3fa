"""One module per `petground` command; each holds one typed function that the command line turns into flags."""
