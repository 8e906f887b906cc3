# One image for every worker; the command chooses which.
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY schemas schemas
COPY pricing pricing
COPY backends backends
COPY streams streams
COPY sinks sinks
COPY alerting alerting
COPY reports reports
COPY relay relay
COPY control control
COPY operations operations
COPY app app
COPY embedded embedded
RUN python -m venv /opt/meterline && /opt/meterline/bin/pip install --no-cache-dir '.[server]'

FROM python:3.11-slim
# The workers write nothing but the streams' scratch directory and the files of closed months.
RUN useradd --system --uid 10001 --create-home meterline \
    && install -d -o meterline -g meterline /var/lib/meterline/closes
COPY --from=build /opt/meterline /opt/meterline
ENV PATH=/opt/meterline/bin:$PATH PYTHONUNBUFFERED=1 METERLINE_LOG_FORMAT=json
USER meterline
WORKDIR /home/meterline
ENTRYPOINT ["meterline"]
CMD ["--help"]
