package script

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/plumb-gitops/plumb/internal/cli"
	"github.com/plumb-gitops/plumb/internal/testenv"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"plumb": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		os.Exit(cli.Run(ctx, "test", os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
	}})
}

// TestScript runs every archive of this folder. In them, beside the commands of
// testscript:
//
//	plumb …                  is this program
//	kubectl …                is the real one
//	until LIMIT COMMAND…     runs a program until it succeeds, prints how long that took
//	fastest LIMIT            fails where none of the "until" since the last "fastest" was as fast
//	absent PATH…             fails where one of the paths exists
//	ended PATH               waits until no process names the path in its command line
//	data NAME FOLDER         makes a Git repository of one of the real repositories
//	[data]                   tells whether there are real repositories
//
// $REGISTRY, $CHARTS, $BUCKET and $REMOTE are where an OCI registry, a Helm repository, an
// S3 store and a Git server listen; see servers.
func TestScript(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	programs := map[string]string{}
	for name, variable := range map[string]string{"localcluster": "PLUMB_LOCALCLUSTER", "kubectl": "PLUMB_KUBECTL"} {
		path := os.Getenv(variable)
		if path == "" {
			path = filepath.Join(root, "bin", name)
		}
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("%v: build it with `make build`, or set %s to its path", err, variable)
		}
		programs[name] = path
	}
	data := os.Getenv("PLUMB_DATA")
	if data == "" {
		data = filepath.Join(root, "..", "shared", "data")
	}
	addresses := servers(t)
	testscript.Run(t, testscript.Params{
		Dir: ".",
		Setup: func(env *testscript.Env) error {
			for name, address := range addresses {
				env.Setenv(name, address)
			}
			return setUp(env, root, programs)
		},
		Condition: func(condition string) (bool, error) {
			if condition != "data" {
				return false, fmt.Errorf("no condition %q", condition)
			}
			_, err := os.Stat(data)
			return err == nil, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"until":   until,
			"fastest": fastest,
			"absent":  absent,
			"ended":   ended,
			"data":    func(ts *testscript.TestScript, neg bool, args []string) { makeRepository(ts, data, args) },
		},
	})
}

// servers starts what sources are fetched from, and gives their addresses: host and port.
func servers(t *testing.T) map[string]string {
	t.Helper()
	config := func(name string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: " + name + "\n  namespace: default\ndata:\n  from: " + name + "\n"
	}
	registry := testenv.NewRegistry(t, testenv.RegistryOptions{})
	registry.Push(t, "team/fleet", "1.0.0", testenv.Files{"a.yaml": config("from-oci")})
	for repository, version := range map[string]string{"jetstack/charts/cert-manager": "1.20.0", "envoyproxy/gateway-helm": "1.8.0"} {
		name := repository[strings.LastIndexByte(repository, '/')+1:]
		registry.PushChart(t, repository, version, testenv.HelmChart(t, name, version, map[string]string{"values.yaml": "a: 1\n"}), nil)
	}
	charts := testenv.NewHelmRepository(t, testenv.HelmRepositoryOptions{})
	for name, version := range map[string]string{"podinfo": "6.9.0", "web": "1.2.3"} {
		charts.Put(t, name, version, testenv.HelmChart(t, name, version, map[string]string{"values.yaml": "a: 1\n"}))
	}
	bucket := testenv.NewBucketServer(t, testenv.BucketOptions{AccessKey: "ann", SecretKey: "s3cret-key"})
	bucket.Fill("fleet", map[string]string{"apps/a.yaml": config("from-bucket")})
	git := testenv.NewGitServer(t, testenv.GitServerOptions{})
	git.Repository(t, "other").Commit(t, "main", testenv.Files{"a.yaml": config("from-git")})
	host := func(address string) string {
		_, rest, _ := strings.Cut(address, "://")
		host, _, _ := strings.Cut(rest, "/")
		return host
	}
	return map[string]string{"REGISTRY": registry.Host(), "CHARTS": host(charts.URL()), "BUCKET": bucket.Address(), "REMOTE": host(git.URL("other"))}
}

// timesKey is that of the times that "until" took, a *[]time.Duration.
type timesKey struct{}

func setUp(env *testscript.Env, root string, programs map[string]string) error {
	env.Values[timesKey{}] = new([]time.Duration)
	tools := filepath.Join(env.WorkDir, ".tools")
	if err := os.MkdirAll(tools, 0o755); err != nil {
		return err
	}
	if err := os.Symlink(programs["kubectl"], filepath.Join(tools, "kubectl")); err != nil {
		return err
	}
	for name, value := range map[string]string{
		"PATH":                env.Getenv("PATH") + string(filepath.ListSeparator) + tools,
		"HOME":                env.WorkDir,
		"ROOT":                root,
		"PLUMB_LOCALCLUSTER":  programs["localcluster"],
		"KUBECACHEDIR":        filepath.Join(env.WorkDir, ".kube", "cache"),
		"KUBERC":              "off",
		"GIT_CONFIG_NOSYSTEM": "1",
		"GIT_AUTHOR_NAME":     "tester", "GIT_AUTHOR_EMAIL": "tester@localhost",
		"GIT_COMMITTER_NAME": "tester", "GIT_COMMITTER_EMAIL": "tester@localhost",
	} {
		env.Setenv(name, value)
	}
	return nil
}

// until LIMIT COMMAND… runs a command again and again until it succeeds; with "!"
// until it fails.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: until LIMIT COMMAND…")
	}
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	start := time.Now()
	for {
		err := ts.Exec(args[1], args[2:]...)
		took := time.Since(start)
		if (err == nil) != neg {
			ts.Logf("took %s", took.Round(time.Millisecond))
			times := ts.Value(timesKey{}).(*[]time.Duration)
			*times = append(*times, took)
			return
		}
		if took > limit {
			ts.Fatalf("%s is not as wanted after %s: %v", strings.Join(args[1:], " "), limit, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// fastest LIMIT bounds what a machine can do that is busy with other tests as well:
// one of several tries has to keep the limit.
func fastest(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: fastest LIMIT")
	}
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	times := ts.Value(timesKey{}).(*[]time.Duration)
	if len(*times) == 0 {
		ts.Fatalf("nothing was timed")
	}
	best := slices.Min(*times)
	*times = nil
	if best > limit {
		ts.Fatalf("the fastest took %s, more than %s", best, limit)
	}
}

func absent(ts *testscript.TestScript, _ bool, args []string) {
	for _, pattern := range args {
		found, err := filepath.Glob(ts.MkAbs(pattern))
		ts.Check(err)
		if len(found) > 0 {
			ts.Fatalf("there is %s", strings.Join(found, ", "))
		}
	}
}

// ended PATH waits until no process names the path in its command line; fastest bounds
// how long that took.
func ended(ts *testscript.TestScript, _ bool, args []string) {
	if runtime.GOOS != "linux" {
		ts.Logf("processes are looked at on Linux only")
		return
	}
	path := ts.MkAbs(args[0])
	start := time.Now()
	for {
		var found []string
		files, err := filepath.Glob("/proc/[0-9]*/cmdline")
		ts.Check(err)
		for _, file := range files {
			if line, err := os.ReadFile(file); err == nil && strings.Contains(string(line), path) {
				found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
			}
		}
		took := time.Since(start)
		if len(found) == 0 {
			times := ts.Value(timesKey{}).(*[]time.Duration)
			*times = append(*times, took)
			return
		}
		if took > time.Minute {
			ts.Fatalf("still running: %s", strings.Join(found, "; "))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// makeRepository makes a Git repository of a folder of the real repositories.
func makeRepository(ts *testscript.TestScript, data string, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: data NAME FOLDER")
	}
	target := ts.MkAbs(args[1])
	ts.Check(os.CopyFS(target, os.DirFS(filepath.Join(data, args[0]))))
	for _, words := range [][]string{{"init", "-q", "-b", "main"}, {"add", "-A"}, {"commit", "-q", "-m", args[0]}} {
		cmd := exec.Command("git", append([]string{"-C", target}, words...)...)
		cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=tester", "GIT_AUTHOR_EMAIL=tester@localhost", "GIT_COMMITTER_NAME=tester", "GIT_COMMITTER_EMAIL=tester@localhost")
		if out, err := cmd.CombinedOutput(); err != nil {
			ts.Fatalf("git %s: %v\n%s", strings.Join(words, " "), err, out)
		}
	}
}
