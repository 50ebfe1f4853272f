"""What a step computes with: VGG, its layers, augmentation, and the devices it runs on."""
