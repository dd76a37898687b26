// Package auth logs in at clouds and at GitHub, for whoever fetches, decrypts or applies
// and has no secret of its own.
//
// A login is made as somebody: the operator itself, whose identity is what the machine and
// the environment give it, or a service account, for which the API server issues a token
// that the cloud exchanges. Only logins of the operator itself reach metadata addresses;
// everything that a service account, a URL of a source or a proxy of an object has a part
// in goes the way of package egress.
//
// What a login gave is kept in memory, bounded, until four fifths of its life are over. The
// key of what is kept holds everything that went into it: nobody is given what somebody
// else logged in for. Callers that want the same at the same time share one login. One that
// failed is not tried again for a few seconds.
//
// What differs between clouds is in the packages below, one for each; the composition root
// hands them in. Errors are *gitops.Error. They name the identity and what to do, are the
// same each time, and hold nothing that a server said but a code.
package auth
