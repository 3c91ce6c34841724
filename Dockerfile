FROM python:3.12-slim AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(ls /wheels/*.whl)[report,tensorboard]" && rm -r /wheels
# Runs go to /langevin/outputs; mount a volume there, and one at /cache for decoded images.
WORKDIR /langevin
ENV LANGEVIN_CACHE=/cache
ENTRYPOINT ["langevin"]
CMD ["--help"]
