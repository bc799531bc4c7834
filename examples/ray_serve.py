"""A service by Ray Serve: post a picture, get it in colour.

python examples/ray_serve.py examples/photographs/coffee.jpg colored.png
"""

from __future__ import annotations

import argparse
import urllib.request
from pathlib import Path

from ray import serve

from disco_fast.integrations.ray import service


def main() -> None:
    """Start the service, post one picture, and stop; without the last line it goes on serving."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()

    serve.start(http_options={"host": "127.0.0.1", "port": arguments.port})
    serve.run(service(num_replicas=1))
    address = f"http://127.0.0.1:{arguments.port}/"
    with urllib.request.urlopen(address, arguments.picture.read_bytes()) as answer:
        arguments.target.write_bytes(answer.read())
    serve.shutdown()


if __name__ == "__main__":
    main()
