"""What a plan may call: how functions become tools, where their bodies run, and the tools that ship."""
