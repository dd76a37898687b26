package gitops

import (
	"context"
	"errors"
	"net"
	"syscall"
)

// NetworkReason puts the failure of a connection into words that are the same each time:
// what the network says has ports in it. It is false for an error of another kind.
func NetworkReason(err error) (reason string, ok bool) {
	var (
		name    *net.DNSError
		errno   syscall.Errno
		network net.Error
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "it does not answer in time", true
	case errors.As(err, &name):
		return "its host is not found", true
	case errors.As(err, &errno):
		return errno.Error(), true
	case errors.As(err, &network) && network.Timeout():
		return "it does not answer in time", true
	}
	return "", false
}
