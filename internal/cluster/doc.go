// Package cluster talks to a Kubernetes cluster: the few
// HTTP verbs that applying needs, on JSON bytes, over client-go's transport.
//
// It decides nothing. Every answer is decoded once, every refusal is one of
// apimachinery's API errors, and two facts that are easily taken for one another
// are kept apart by type: a kind that is not served ([NotServedError]) and a
// discovery that failed ([DiscoveryError]). A warm [Client] answers questions
// about kinds without a request and without a lock.
//
// A [Connection] carries the operator's own rights and stays with the composition
// root; what works on objects is given a [Client], which acts for the identity of
// their owner where there is one.
package cluster
