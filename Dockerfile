FROM python:3.12-slim AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
COPY --from=build /wheels /wheels
# PyTorch's wheels for Linux bring CUDA with them; for a machine without a GPU give
# --build-arg INDEX=https://download.pytorch.org/whl/cpu, which makes the image much smaller.
ARG INDEX=https://pypi.org/simple
RUN pip install --no-cache-dir --index-url "$INDEX" --extra-index-url https://pypi.org/simple torch torchvision \
    && pip install --no-cache-dir "$(ls /wheels/*.whl)[report,tensorboard]" \
    && rm -r /wheels
# Runs go to /work/outputs; mount a volume there, and one at /cache for decoded images.
WORKDIR /work
ENV LANGEVIN_CACHE=/cache
ENTRYPOINT ["langevin"]
CMD ["--help"]
