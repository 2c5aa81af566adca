"""The papers' architectures: nothing but `nn.Module`s, and the losses that belong to one of them."""
