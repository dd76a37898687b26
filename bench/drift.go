package main

import (
	"context"
	"fmt"
	"time"
)

// driftResult is a series of foreign changes, each of one field of one object.
type driftResult struct {
	// Repaired is from before the foreign write is sent until the driver's watch
	// shows the object as it was.
	Repaired samples `json:"repairedSeconds"`
	// Requests are those of all repairs, and of what they led to.
	Requests tally    `json:"requestsOfAll"`
	CPU      duration `json:"cpuSeconds"`
}

// perRepair is the number of requests for each repair.
func (r driftResult) perRepair() float64 {
	return float64(r.Requests.requests()) / float64(len(r.Repaired))
}

// foreignChange is what somebody else does to an object of a kind, and how it is
// seen that it has been done.
type foreignChange struct {
	patch   map[string]any
	drifted func(object) bool
}

// foreignChanges are in the order of appKinds. None has an effect beyond the object.
func foreignChanges() []foreignChange {
	return []foreignChange{
		{
			patch:   map[string]any{"automountServiceAccountToken": true},
			drifted: func(o object) bool { return o.AutomountServiceAccountToken != nil && *o.AutomountServiceAccountToken },
		}, {
			patch:   map[string]any{"spec": map[string]any{"ports": []any{map[string]any{"name": "drifted", "port": 9898}}}},
			drifted: func(o object) bool { return len(o.Spec.Ports) != 3 || o.Spec.Ports[0].Name != "http" },
		}, {
			patch:   map[string]any{"spec": map[string]any{"revisionHistoryLimit": 3}},
			drifted: func(o object) bool { return o.Spec.RevisionHistoryLimit == nil || *o.Spec.RevisionHistoryLimit != 5 },
		}, {
			patch:   map[string]any{"spec": map[string]any{"ingressClassName": "drifted"}},
			drifted: func(o object) bool { return o.Spec.IngressClassName != "nginx" },
		},
	}
}

// drift changes one object after the other, kinds in turn, spread over the fleet.
func (s *session) drift(ctx context.Context) (*driftResult, error) {
	from, err := s.plane.audit.now()
	if err != nil {
		return nil, err
	}
	result := &driftResult{}
	cpu := s.operator.used()
	for i := range s.options.samples {
		began := time.Now()
		repaired, err := s.disturb(ctx, s.fleet.spread(i, s.options.samples), i%len(appKinds()))
		if err != nil {
			return nil, err
		}
		at, err := repaired(ctx)
		if err != nil {
			return nil, err
		}
		result.Repaired = append(result.Repaired, at.Sub(began))
		place, err := s.plane.audit.now()
		if err != nil {
			return nil, err
		}
		if _, err := s.operator.quiet(ctx, place, commitPause); err != nil {
			return nil, err
		}
	}
	if result.Requests, err = s.operator.settled(ctx, from, time.Minute); err != nil {
		return nil, err
	}
	result.CPU = duration(s.operator.used() - cpu)
	return result, nil
}

// disturb changes an app's object of a kind. The returned function waits until the
// object is as it was.
func (s *session) disturb(ctx context.Context, app, kind int) (func(context.Context) (time.Time, error), error) {
	change, namespace, name := foreignChanges()[kind], s.fleet.namespace(app), s.fleet.name(app)
	if o, ok := s.apps[kind].get(namespace, name); !ok || change.drifted(o) {
		return nil, fmt.Errorf("%s %q is not as it should be before the change", appKinds()[kind].kind, name)
	}
	seen := false
	restored := s.apps[kind].expect(one(namespace, name, func(o object) bool {
		drifted := change.drifted(o)
		seen = seen || drifted
		return seen && !drifted
	}), atLeast(1))
	if err := s.plane.patch(ctx, appKinds()[kind].path(namespace)+"/"+name, change.patch); err != nil {
		return nil, err
	}
	return func(ctx context.Context) (time.Time, error) {
		at, err := restored(ctx, liveWithin)
		if err != nil {
			err = fmt.Errorf("%s %q: %w", appKinds()[kind].kind, name, err)
		}
		return at, err
	}, nil
}
