package gitops

import (
	"errors"
	"time"
)

// HealthStatus is the state of an object in the words of kstatus.
type HealthStatus string

const (
	HealthCurrent     HealthStatus = "Current"
	HealthInProgress  HealthStatus = "InProgress"
	HealthFailed      HealthStatus = "Failed"
	HealthTerminating HealthStatus = "Terminating"
	HealthNotFound    HealthStatus = "NotFound"
	HealthUnknown     HealthStatus = "Unknown"
)

// Health is the state of an object and why it is so.
type Health struct {
	Status  HealthStatus
	Message string
}

// StageName is a stage of the way of a commit.
type StageName string

const (
	StageFetch  StageName = "fetch"
	StageBuild  StageName = "build"
	StagePlan   StageName = "plan"
	StageApply  StageName = "apply"
	StagePrune  StageName = "prune"
	StageHealth StageName = "health"
)

// ErrorKind says what kind of answer an error needs.
type ErrorKind string

const (
	// Transient errors may go away by themselves: try again with back-off.
	Transient ErrorKind = "transient"
	// Waiting errors go away when something named happens elsewhere.
	Waiting ErrorKind = "waiting"
	// Stalled errors stay until the owner's own specification changes.
	Stalled ErrorKind = "stalled"
	// Denied errors are refusals of rights or policy.
	Denied ErrorKind = "denied"
	// Invalid errors stay until the source changes.
	Invalid ErrorKind = "invalid"
	// Internal errors are defects of our own.
	Internal ErrorKind = "internal"
)

// Error is a failure of a stage with all that a person and the engine need to
// know of it. Its text is deterministic, so that a failure that repeats does
// not write a status again.
type Error struct {
	Stage StageName
	Kind  ErrorKind
	// Reason is the condition reason, such as BuildFailed; empty to let the
	// front end choose by stage.
	Reason string
	// Ref is the object at fault; the zero value where there is none.
	Ref ObjectRef
	// Origin is where the object at fault is declared.
	Origin Origin
	Cause  error
}

// Error names the object and its origin, where they are known, and the cause.
func (e *Error) Error() string {
	text := e.Cause.Error()
	if e.Ref != (ObjectRef{}) {
		at := ""
		if e.Origin.File != "" || e.Origin.Generator != "" {
			at = " (" + e.Origin.String() + ")"
		}
		text = e.Ref.String() + at + ": " + text
	}
	return text
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// KindOf is the kind of the first Error in err's chain, Transient where there
// is none, and "" for nil.
func KindOf(err error) ErrorKind {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Transient
}

// Severity tells how bad an event is.
type Severity string

const (
	SeverityInfo  Severity = "info"
	SeverityError Severity = "error"
)

// Event is something that happened, for people and for other systems.
type Event struct {
	Owner    OwnerRef
	Severity Severity
	Reason   string
	Message  string
	Revision string
	Metadata map[string]string
}

// StageResult says how a stage of a run went.
type StageResult struct {
	Stage    StageName
	Duration time.Duration
	Err      error
}

// Contest is a field that somebody else changes again and again.
type Contest struct {
	Ref ObjectRef
	// Fields are the paths, such as .spec.replicas, sorted.
	Fields []string
	// By names who does it: field managers, or "admission" for a change that is
	// made while we write. Empty where it is not known.
	By string
}

// Report is the outcome of one run for one owner.
type Report struct {
	Owner OwnerRef
	// Attempted is the revision that the run worked on; empty where it only
	// kept what was applied before.
	Attempted string
	// Digest is that of the build that the run worked on; the zero value where
	// there was none.
	Digest Digest
	// Built is set where the run rendered, and did not find the build that it had.
	Built bool
	// Stages holds one result for each stage that the run went through.
	Stages []StageResult
	// Inventory is what the owner is responsible for after the run.
	Inventory Inventory
	// Unreadable is set where the stored inventory could not be read: Inventory is
	// not known then, and what is stored must stay.
	Unreadable bool
	// Changes are what the run did to objects.
	Changes ChangeSet
	// Health is the worst health of what the owner waits for; it has an empty
	// status where the owner waits for nothing.
	Health Health
	// Checked is how many objects Health was made from.
	Checked int
	// Unhealthy are the objects for which Err is a failure of health, sorted.
	Unhealthy []ObjectRef
	// Waiting is set while objects are not healthy yet and still have time; the
	// run goes on by itself when one of them changes.
	Waiting bool
	// Planned is set where declared and actual state were compared. A run that did
	// not come so far says nothing of objects of others and of contested fields.
	Planned bool
	// Foreign are declared objects that another owner has.
	Foreign []ForeignObject
	// Held are deletions that wait for a confirmation. They are known where Judged
	// is set: a run that made no complete plan says nothing of them.
	Held   Hold
	Judged bool
	// Left are objects that left the inventory and stay in the cluster, where
	// nobody manages them now.
	Left []LeftObject
	// Moved is set where the owner's objects were in another cluster until now: what
	// is there stays there.
	Moved *Move
	// Contested are fields that somebody else changes again and again.
	Contested []Contest
	// Warnings are sentences of the build for people.
	Warnings []string
	// Err is why the run did not succeed; nil where it did or still waits.
	Err error
	// Started and Finished are the bounds of the run.
	Started  time.Time
	Finished time.Time
	// Next is when the owner should be looked at again at the latest, such as
	// the end of a health wait; zero where only an event brings it back.
	Next time.Time
}

// Move is a change of the cluster that an owner's objects are in. From and To are
// addresses; the operator's own cluster has none.
type Move struct {
	From, To string
}

// Failed is the stage that the run ended in, and "" where it did not fail.
func (r Report) Failed() StageName {
	var e *Error
	if errors.As(r.Err, &e) {
		return e.Stage
	}
	return ""
}
