"""The one loop that runs executions. It knows the domain and, through `ports`, a journal, tools and a clock."""
