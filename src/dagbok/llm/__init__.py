"""Model calls: the tools `inference` and the synthesis, what a model is asked, and the built-in offline model."""
