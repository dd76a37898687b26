// Package testenv gives tests the surroundings they need: a real control plane,
// and the real kubectl to look at it with. It is imported by tests only.
//
// The control plane is the program localcluster, found through the environment
// variable PLUMB_LOCALCLUSTER or as bin/localcluster at the module's root. It
// holds real API server, etcd, controllers and scheduler; only nodes and the pods
// on them are simulated. Starting one takes about two seconds, so the tests of a
// binary share one and keep apart by namespace:
//
//	func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }
//
//	func TestApply(t *testing.T) {
//		c := testenv.Get(t)
//		namespace := c.Namespace(t)
//		...
//	}
//
// A test that needs a control plane to itself calls Start. Either ends with its
// test binary, also when that one is killed, and leaves no file behind.
package testenv
