# disco-fast on a CPU, without a compiler or Git in the image:
#   docker build -t disco-fast .
#   docker run --rm --user "$(id -u)" -v "$PWD:/pictures" disco-fast colorize photographs -o colored
FROM python:3.12-slim AS built
ARG TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
RUN apt-get update && apt-get install -y --no-install-recommends g++
RUN pip install --no-cache-dir $TORCH
COPY . /src
RUN DISCO_FAST_CUDA=off pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /src

FROM python:3.12-slim
ARG TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
RUN pip install --no-cache-dir $TORCH
COPY --from=built /wheels /wheels
RUN pip install --no-cache-dir /wheels/*.whl
RUN disco-fast info
WORKDIR /pictures
ENTRYPOINT ["disco-fast"]
