"""The towers of an encoder as PyTorch modules, with LoRA and prompts beside their weights, which never change.

==================  ==============================================================================================
module              what it holds
==================  ==============================================================================================
``tuning``          :class:`~crossfade.encoders.towers.tuning.Tuning`: what is added to which tower
``tower``           :class:`~crossfade.encoders.towers.tower.Tower`: items → inputs → features, with gradients
``dual``            the two towers of a dual encoder in the transformers format
``sentence``        the text tower of a sentence-transformers model, with a head of its own if need be
``cached``          a frozen tower: the features it once gave
``lora``            low-rank additions to linear layers, by peft
``prompts``         learned vectors among a tower's tokens or patches
``tuned``           :class:`~crossfade.encoders.towers.tuned.TunedTowers`: towers with all of it
==================  ==============================================================================================

Only ``tuning`` can be imported without PyTorch.
"""
