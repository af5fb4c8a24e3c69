"""Real campaigns: people answer, in their own time; every command can be repeated and goes on where things stand."""
