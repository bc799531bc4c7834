"""A service by Ray Serve, one copy of the network on this machine, until Ctrl-C.

    python examples/ray_serve.py
    curl --data-binary @examples/photographs/coffee.jpg -o colored.png http://127.0.0.1:8000/

`GET /-/healthz` answers 200 as long as it serves. What is refused is answered with a sentence: 400
for no picture or too many pixels, 405 for anything but POST, 408 for a body that takes too long,
413 for too many bytes, 503 and 507 where too much is going on or memory runs out.
"""

from __future__ import annotations

import argparse

from ray import serve

from disco_fast.integrations.ray import service


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--mebibytes", type=int, default=32, help="of a body; default 32")
    parser.add_argument("--megapixels", type=float, default=40, help="of a picture; default 40")
    parser.add_argument("--seconds", type=float, default=60, help="for a body; default 60")
    arguments = parser.parse_args()

    application = service(
        num_replicas=1,
        largest_upload=arguments.mebibytes * 2**20,
        max_megapixels=arguments.megapixels,
        upload_timeout_s=arguments.seconds,
    )
    # For this machine alone: others come by way of a proxy that knows who they are.
    serve.start(http_options={"host": "127.0.0.1", "port": arguments.port})
    serve.run(application, blocking=True)


if __name__ == "__main__":
    main()
