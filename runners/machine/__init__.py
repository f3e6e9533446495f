"""What does this machine offer: a device, a processor, a disk?"""
