"""Language models and embedders: one request pipeline behind every way to ask them."""
