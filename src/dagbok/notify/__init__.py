"""Who is told what happened, after it is durable."""
