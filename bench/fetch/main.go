// Fetch fetches one branch of a repository and ends. The benchmark runs it to see what
// the process needed at most: with Plumb's store, or with go-git's shallow clone, which
// other operators use. Both ways are in one program, so that what differs is the work.
//
//	fetch plumb URL FOLDER [COUNT]
//	fetch go-git URL FOLDER
//
// With a COUNT it waits for a line on its standard input before each further fetch, and
// answers each with the revision. Its last line is the most memory that it had, as the
// kernel kept it: what a parent can ask for counts the parent's own memory too.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"

	"github.com/plumb-gitops/plumb/internal/source/git"
)

func main() {
	err := run(os.Args[1:])
	if err == nil {
		err = sayPeak()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fetch:", err)
		os.Exit(1)
	}
}

// within is how long one fetch may take.
const within = 5 * time.Minute

func run(args []string) error {
	switch {
	case len(args) >= 3 && args[0] == "plumb":
		return plumb(args[1], args[2], args[3:])
	case len(args) == 3 && args[0] == "go-git":
		return clone(args[1], args[2])
	default:
		return errors.New("usage: fetch plumb|go-git URL FOLDER [COUNT]")
	}
}

// sayPeak prints the highest resident memory. It needs /proc.
func sayPeak() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			fmt.Println(strings.Join(strings.Fields(rest), " "))
			return nil
		}
	}
	return errors.New("the kernel does not say how much memory was used")
}

func plumb(url, folder string, more []string) (err error) {
	again := 0
	if len(more) > 0 {
		if again, err = strconv.Atoi(more[0]); err != nil {
			return err
		}
	}
	store, err := git.Open(folder, git.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	request := git.Request{URL: url, Ref: git.Ref{Branch: "main"}}
	in := bufio.NewScanner(os.Stdin)
	for range again + 1 {
		if err := fetch(store, &request); err != nil {
			return err
		}
		fmt.Println(request.Known)
		if again > 0 && !in.Scan() {
			break
		}
	}
	return in.Err()
}

func fetch(store *git.Store, request *git.Request) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	result, err := store.Fetch(ctx, *request)
	if err != nil {
		return err
	}
	defer result.Release()
	request.Known = result.Revision
	return nil
}

// clone is what Flux's source-controller does for a new revision: one commit, in a bare
// repository here, so that writing files is not counted.
func clone(url, folder string) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	repository, err := gogit.PlainCloneContext(ctx, folder, true, &gogit.CloneOptions{
		URL: url, ReferenceName: plumbing.NewBranchReferenceName("main"), SingleBranch: true, Depth: 1, Tags: gogit.NoTags,
	})
	if err != nil {
		return err
	}
	head, err := repository.Head()
	if err != nil {
		return err
	}
	fmt.Println(head.Hash())
	return nil
}
