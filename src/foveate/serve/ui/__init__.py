"""The live page: drop a picture, ask, move the budget, and see what is kept."""
