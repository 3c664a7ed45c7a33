"""What a release is made of: libraries for every platform, wheels, their proof, and the checks before an upload."""
