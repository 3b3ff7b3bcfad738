"""How an execution reaches the engine that runs it."""
