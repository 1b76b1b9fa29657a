"""The front door: a command is a class, its flags are its fields; `console` is how it speaks."""
