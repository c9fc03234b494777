"""How torch's own tools see our models: torch.jit.trace, torch.export and torch.compile."""
