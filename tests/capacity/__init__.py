"""How many connections this machine holds, and what they cost: a run that anyone can make again."""
