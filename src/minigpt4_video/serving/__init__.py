"""The model behind OpenAI's interface, for many users at once, safe to expose."""
