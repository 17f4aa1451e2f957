"""The server: models behind an address, in OpenAI's completions protocol."""
