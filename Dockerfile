# The image of the operator: one static program and the certificates that it trusts.
# No shell, no package manager, no user but a number. Build: make image IMAGE=name:tag
ARG GO=golang:1.26
FROM ${GO} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
ARG TARGETOS TARGETARCH
RUN CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} \
	go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /plumb ./cmd/plumb

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /plumb /plumb
# A number, so that runAsNonRoot can be checked without a file of users.
USER 65532:65532
ENTRYPOINT ["/plumb"]
