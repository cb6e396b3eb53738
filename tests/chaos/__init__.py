"""What happens to clients while workers are reloaded and killed: a run that anyone can make again, with its seed."""
