"""What the suites about encoders share: the models they run, the graphs made of them, and the engines behind one call."""
