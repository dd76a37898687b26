// Package test tests the program localcluster from outside, as others use it: the
// binary that PLUMB_LOCALCLUSTER names or ../bin/localcluster, and kubectl from
// PLUMB_KUBECTL or ../bin/kubectl. Build them with build.sh.
package test
