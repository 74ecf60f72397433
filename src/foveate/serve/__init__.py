"""A server for vision-language models that holds compressed caches of many requests at once."""
