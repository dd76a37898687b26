package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/Masterminds/semver/v3"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// tags lists the tags of the repository. What is no tag is left out.
func (c *client) tags(ctx context.Context) ([]string, error) {
	next, err := c.url(ctx, "tags", "list")
	if err != nil {
		return nil, endOf(ctx, err)
	}
	next.RawQuery = "n=1000"
	var all []string
	seen := 0
	for page := 1; next != nil; page++ {
		if page > c.limits.TagPages {
			return nil, &tooMany{"pages of tags", c.limits.TagPages}
		}
		var names []string
		if names, next, err = c.tagPage(ctx, next); err != nil {
			return nil, err
		}
		if seen += len(names); seen > c.limits.Tags {
			return nil, &tooMany{"tags", c.limits.Tags}
		}
		for _, name := range names {
			if validTag(name) {
				all = append(all, name)
			}
		}
	}
	return all, nil
}

// tooMany is the error of a list beyond its bound.
type tooMany struct {
	what string
	most int
}

// Error says what is too long.
func (e *tooMany) Error() string {
	return fmt.Sprintf("the registry lists more than %d %s", e.most, e.what)
}

// tagPage gets one page of tags, and where the next one is; nil where there is none.
func (c *client) tagPage(ctx context.Context, at *url.URL) (names []string, next *url.URL, err error) {
	response, err := c.do(ctx, http.MethodGet, at, "application/json")
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, nil, endOf(ctx, err)
	}
	if names, err = parseTags(content); err != nil {
		return nil, nil, err
	}
	next, err = nextPage(response.Header.Get("Link"), response.Request.URL)
	if err == nil && next != nil && !sameHost(next, at.Scheme, c.repository.RegistryStr()) {
		err = errors.New("the registry's next page of tags is on another host")
	}
	return names, next, err
}

// parseTags reads a page of tags.
func parseTags(content []byte) ([]string, error) {
	var page struct {
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(content, &page); err != nil {
		return nil, errors.New("the registry's list of tags cannot be read")
	}
	return page.Tags, nil
}

// nextPage reads where a Link header says that the next page is, as seen from the present
// one; nil where it does not.
func nextPage(link string, from *url.URL) (*url.URL, error) {
	if link == "" {
		return nil, nil
	}
	target, parameters, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	if !ok || !strings.HasPrefix(link, "<") {
		return nil, errors.New("the registry's link to the next page of tags cannot be read")
	}
	if relation := strings.ReplaceAll(parameters, " ", ""); relation != "" && !strings.Contains(relation, `rel="next"`) && !strings.Contains(relation, "rel=next") {
		return nil, nil
	}
	to, err := from.Parse(target)
	if err != nil || to.Host == "" || to.Scheme != from.Scheme {
		return nil, errors.New("the registry's link to the next page of tags cannot be read")
	}
	return to, nil
}

// chartLayer is the media type of a Helm chart. Tags of charts have "_" where their
// version has "+", which no tag can have.
const chartLayer = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"

// newest picks the tag of the newest version in a range. Like Flux it takes tags with all
// three numbers, with or without a leading v.
func newest(ref Ref, mediaType string, tags []string) (string, error) {
	constraint, err := semver.NewConstraint(ref.SemVer)
	if err != nil {
		return "", err
	}
	filter, err := regexp.Compile(ref.SemVerFilter)
	if err != nil {
		return "", err
	}
	var best *semver.Version
	chosen, matching := "", 0
	for _, tag := range tags {
		if !filter.MatchString(tag) {
			continue
		}
		matching++
		version, err := parseVersion(tag, mediaType)
		if err != nil || !constraint.Check(version) {
			continue
		}
		// Versions that differ in build metadata only are equal; the names decide then, so
		// that the answer does not depend on the order.
		if best == nil || version.GreaterThan(best) || version.Equal(best) && tag > chosen {
			best, chosen = version, tag
		}
	}
	switch {
	case best != nil:
		return chosen, nil
	case len(tags) == 0:
		return "", notThere("the repository has no tags")
	case matching == 0:
		return "", notThere(fmt.Sprintf("none of the %d tags of the repository matches the filter", len(tags)))
	}
	return "", notThere(fmt.Sprintf("none of the %d tags that are looked at is a version in the range", matching))
}

func notThere(text string) error {
	return &fault{kind: gitops.Invalid, text: text, remedy: "push one, or change \"ref\""}
}

func parseVersion(tag, mediaType string) (*semver.Version, error) {
	if mediaType == chartLayer {
		tag = strings.ReplaceAll(tag, "_", "+")
	}
	if len(strings.SplitN(tag, ".", 3)) != 3 {
		return nil, semver.ErrInvalidSemVer
	}
	return semver.NewVersion(tag)
}
