package main

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

// restartResult is the operator killed and started again.
type restartResult struct {
	// Kept and Lost are with the data folder as it was, and without it.
	Kept revival `json:"kept"`
	Lost revival `json:"lost"`
}

// revival is what a restart costs and how soon the operator is at work.
type revival struct {
	// Idle are the requests of a restart with nothing changed, and Settled the
	// time from the start of the process to the end of its work.
	Idle    tally    `json:"requestsWithNothingChanged"`
	Settled duration `json:"settledSeconds"`
	// Repaired and Live are from the start of the process until a drift and a
	// commit that were made while it was down are undone and live.
	Repaired duration `json:"driftRepairedSeconds"`
	Live     duration `json:"commitLiveSeconds"`
}

func (s *session) restart(ctx context.Context) (*restartResult, error) {
	result := &restartResult{}
	for i, r := range []*revival{&result.Kept, &result.Lost} {
		lost := i == 1
		if err := s.reviveIdle(ctx, r, lost); err != nil {
			return nil, fmt.Errorf("with nothing changed (data folder lost: %t): %w", lost, err)
		}
		if err := s.reviveBehind(ctx, r, lost, i); err != nil {
			return nil, fmt.Errorf("with a drift and a commit (data folder lost: %t): %w", lost, err)
		}
	}
	return result, nil
}

// kill ends the operator as a crash does.
func (s *session) kill(lost bool) error {
	if err := s.operator.stop(syscall.SIGKILL); err != nil {
		return err
	}
	if lost {
		return s.operator.lose()
	}
	return nil
}

// reviveIdle restarts with nothing changed.
func (s *session) reviveIdle(ctx context.Context, r *revival, lost bool) error {
	if err := s.kill(lost); err != nil {
		return err
	}
	from, err := s.plane.audit.now()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := s.operator.start(); err != nil {
		return err
	}
	if err := s.operator.ready(ctx); err != nil {
		return err
	}
	r.Idle, err = s.operator.settled(ctx, from, 5*time.Minute)
	r.Settled = duration(time.Since(began) - quietFor)
	return err
}

// reviveBehind restarts after a drift of one app and a commit to another one.
func (s *session) reviveBehind(ctx context.Context, r *revival, lost bool, i int) error {
	if err := s.kill(lost); err != nil {
		return err
	}
	committed, drifted := s.fleet.spread(2*i, 5), s.fleet.spread(2*i+1, 5)
	live, err := s.change(committed)
	if err != nil {
		return err
	}
	if _, err := s.repo.commit(ctx, "while the operator was down"); err != nil {
		return err
	}
	repaired, err := s.disturb(ctx, drifted, 1)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := s.operator.start(); err != nil {
		return err
	}
	liveAt, err := live(ctx, allWithin)
	if err != nil {
		return err
	}
	repairedAt, err := repaired(ctx)
	if err != nil {
		return err
	}
	r.Live, r.Repaired = duration(liveAt.Sub(began)), duration(repairedAt.Sub(began))
	from, err := s.plane.audit.now()
	if err != nil {
		return err
	}
	_, err = s.operator.settled(ctx, from, 5*time.Minute)
	return err
}
