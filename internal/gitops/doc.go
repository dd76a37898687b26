// Package gitops is Plumb's vocabulary: identifiers, and the values that flow
// from stage to stage (Artifact → Snapshot → Build → Plan → ChangeSet → Health →
// Report).
//
// Every value is immutable once it has been handed on: whoever receives one may
// keep it, log it, compare it and share it between goroutines, and may not
// change it. The package does no I/O, imports no client and knows no API group;
// names of labels, annotations and field managers are data given by a front
// end. All other packages import it, it imports none of them.
package gitops
