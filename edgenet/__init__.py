"""edgenet carries a MobileNet, or your own Keras classifier, to a Raspberry Pi or a phone, with proof at each step."""
