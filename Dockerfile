# The environment of the tools and tests, for CPUs: docker build -t mmrkd . && docker run --rm -it mmrkd quickstart
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends git g++ libglib2.0-0 && rm -rf /var/lib/apt/lists/*
WORKDIR /mmrkd
ENV MMRKD_ENV=/opt/mmrkd FORCE_CUDA=0
COPY requirements requirements
COPY tools/setup_env.sh tools/setup_env.sh
RUN bash tools/setup_env.sh
COPY . .
ENV PATH=/opt/mmrkd/bin:$PATH PYTHONPATH=/mmrkd
ENTRYPOINT ["python", "-m", "mmrkd"]
CMD ["--help"]
