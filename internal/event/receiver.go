package event

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// payload is the body that an events receiver takes.
type payload struct {
	InvolvedObject      corev1.ObjectReference `json:"involvedObject"`
	Severity            string                 `json:"severity"`
	Timestamp           metav1.Time            `json:"timestamp"`
	Message             string                 `json:"message"`
	Reason              string                 `json:"reason"`
	Metadata            map[string]string      `json:"metadata,omitempty"`
	ReportingController string                 `json:"reportingController"`
	ReportingInstance   string                 `json:"reportingInstance,omitempty"`
}

// post sends an event to the receiver, and again after each of the RetryDelays
// while it cannot be reached or fails. A receiver that has had an equal event
// answers 429: that is delivered.
func (r *Recorder) post(ctx context.Context, next record) error {
	body, err := json.Marshal(payload{
		InvolvedObject:      next.object,
		Severity:            string(next.severity),
		Timestamp:           metav1.NewTime(next.time),
		Message:             next.message,
		Reason:              next.reason,
		Metadata:            next.metadata,
		ReportingController: next.component,
		ReportingInstance:   r.options.Instance,
	})
	if err != nil {
		return fmt.Errorf("encode an event of %s: %w", describe(next.object), err)
	}
	for try := 0; ; try++ {
		again, err := r.postOnce(ctx, body)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("post an event of %s: %w", describe(next.object), err)
		if !again || try == len(r.options.RetryDelays) {
			return err
		}
		pause := time.NewTimer(r.options.RetryDelays[try])
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return err
		}
	}
}

// postOnce also tells whether another try can help.
func (r *Recorder) postOnce(ctx context.Context, body []byte) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.options.RequestTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.options.Address, bytes.NewReader(body))
	if err != nil {
		return false, fmt.Errorf("address: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return true, err
	}
	defer func() { _ = response.Body.Close() }()
	// Read what little there is, so that the connection is used again.
	_, _ = io.CopyN(io.Discard, response.Body, 4096)
	switch {
	case response.StatusCode < 300, response.StatusCode == http.StatusTooManyRequests:
		return false, nil
	default:
		return response.StatusCode >= 500, fmt.Errorf("the receiver answers %s", response.Status)
	}
}
