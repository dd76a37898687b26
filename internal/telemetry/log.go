// Package telemetry sets up what the operator says of itself: one logger that
// nothing secret passes, and its metrics.
//
// Log lines have the keys that tools for Flux parse: ts, level, msg, controller,
// controllerGroup, controllerKind, namespace, name, reconcileID, error, logger.
// Every line goes through Redact before it is written. Metric names carry their
// unit; labels are bounded by the number of custom resources. The composition
// root builds both and hands them on; there is no global here.
package telemetry

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

// The verbosities of logr that have a name: log.V(telemetry.Debug).Info(…).
const (
	Debug = 1
	Trace = 2
)

// timeFormat is ISO 8601 with milliseconds, as Flux's controllers write it.
const timeFormat = "2006-01-02T15:04:05.000Z0700"

// LogOptions say what is logged and how.
type LogOptions struct {
	// Level is trace, debug, info or error; empty for info.
	Level string
	// Encoding is json or console; empty for json.
	Encoding string
}

// NewLogger gives a logger that writes a line per record to out, without secrets.
// It fails for an unknown level or encoding.
func NewLogger(out io.Writer, options LogOptions) (logr.Logger, error) {
	level, err := parseLevel(options.Level)
	if err != nil {
		return logr.Discard(), err
	}
	handlerOptions := &slog.HandlerOptions{Level: level, ReplaceAttr: rename}
	out = redactor{out}
	switch options.Encoding {
	case "json", "":
		return logr.FromSlogHandler(slog.NewJSONHandler(out, handlerOptions)), nil
	case "console":
		return logr.FromSlogHandler(slog.NewTextHandler(out, handlerOptions)), nil
	default:
		return logr.Discard(), fmt.Errorf("log encoding %q is neither json nor console", options.Encoding)
	}
}

// SetLibraries makes controller-runtime and client-go log to log. It is called
// once, before either is used; both keep their logger in globals of their own.
func SetLibraries(log logr.Logger) {
	ctrllog.SetLogger(log)
	klog.SetLoggerWithOptions(log.WithName("runtime"), klog.ContextualLogger(true))
}

// parseLevel maps a name to the slog level that logr's verbosity becomes: V(n)
// is -n.
func parseLevel(name string) (slog.Level, error) {
	switch name {
	case "trace":
		// From 8 on client-go shows the bodies of requests, and with them Secrets.
		return -7, nil
	case "debug":
		return -Debug, nil
	case "info", "":
		return slog.LevelInfo, nil
	case "error":
		return slog.LevelError, nil
	default:
		return 0, fmt.Errorf("log level %q is none of trace, debug, info, error", name)
	}
}

func levelName(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "error"
	case level >= slog.LevelInfo:
		return "info"
	case level >= -Debug:
		return "debug"
	default:
		return "trace"
	}
}

// rename gives the fields their names and forms.
func rename(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.TimeKey:
		return slog.String("ts", a.Value.Time().UTC().Format(timeFormat))
	case slog.LevelKey:
		if level, ok := a.Value.Any().(slog.Level); ok {
			return slog.String("level", levelName(level))
		}
	case "err": // logr's name for the error of Error
		a.Key = "error"
	}
	return a
}

// redactor passes each write on without secrets. The handlers above write a
// record at once, so that a secret cannot be cut in two.
type redactor struct{ out io.Writer }

func (r redactor) Write(line []byte) (int, error) {
	if _, err := io.WriteString(r.out, Redact(string(line))); err != nil {
		return 0, err
	}
	return len(line), nil
}
