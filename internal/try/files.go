package try

import (
	"context"
	"fmt"
)

// commitFiles makes a commit of the files as they are, on top of head; head is
// empty where nothing was committed. Objects go to the scratch repository, the
// index is a scratch one: nothing of the person's repository changes. Files that
// Git ignores are left out. Where the files are those of head, head itself is
// served, unless that would take back what was served before.
func (r *repository) commitFiles(ctx context.Context, branch, head string) (commit, error) {
	git := r.filesGit()
	if _, err := git.run(ctx, "add", "--all", "--", "."); err != nil {
		return commit{}, err
	}
	tree, err := git.run(ctx, "write-tree")
	if err != nil {
		return commit{}, err
	}
	before := r.served.id
	if before != "" && r.head == head {
		was, err := r.scratchGit().run(ctx, "rev-parse", before+"^{tree}")
		if err != nil {
			return commit{}, err
		}
		if was == tree {
			return commit{branch, before}, nil
		}
	}
	if head != "" {
		same, err := r.scratchGit().run(ctx, "rev-parse", head+"^{tree}")
		if err != nil {
			return commit{}, err
		}
		if same == tree && r.follows(ctx, before, head) {
			r.head = head
			return commit{branch, head}, nil
		}
	}
	args := []string{"commit-tree", tree, "-m", fmt.Sprintf("files of %s", r.folder)}
	if before != "" {
		args = append(args, "-p", before)
	}
	if head != "" && head != before && (before == "" || r.head != head) {
		args = append(args, "-p", head)
	}
	id, err := r.scratchGit().run(ctx, args...)
	if err != nil {
		return commit{}, err
	}
	r.head = head
	return commit{branch, id}, nil
}

// follows tells whether head comes after what was served before.
func (r *repository) follows(ctx context.Context, before, head string) bool {
	if before == "" {
		return true
	}
	_, err := r.scratchGit().run(ctx, "merge-base", "--is-ancestor", before, head)
	return err == nil
}

// filesGit is git with the person's files, settings and ignored files, and with a
// scratch index and object store.
func (r *repository) filesGit() gitCommand {
	gitDir := r.gitDir
	if gitDir == "" {
		gitDir = r.scratch
	}
	return in(r.folder).with("GIT_DIR="+gitDir, "GIT_WORK_TREE="+r.folder, "GIT_INDEX_FILE="+r.index,
		"GIT_OBJECT_DIRECTORY="+r.scratch+"/objects")
}
