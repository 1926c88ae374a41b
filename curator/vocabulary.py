"""The words by which the generic view tells news from machinery, in lower case."""

from __future__ import annotations

# Keys that carry machinery rather than news, whatever the vendor; and keys of secrets that some vendors put in bodies.
NOISE = frozenset({
    "$schema", "__v", "_etag", "_meta", "_metrics", "abs_path", "accept_language", "admin_graphql_api_id",
    "aggregateprogress", "api_app_id", "api_version", "authed_users", "authorizations", "authortimestamp",
    "background_color", "balance_transaction", "blocks", "boardorder", "body_html", "bodyhtml", "browser_ip",
    "calculated_statement_descriptor", "capabilities", "cart_token", "challenge", "checkout_token", "checksum",
    "client_details", "client_ip", "client_msg_id", "color", "committertimestamp", "content_html", "cookies", "cursor",
    "delivery_attempts", "delivery_status", "display", "entities", "env", "etag", "event_context", "event_ts", "expand",
    "favicon", "features", "fingerprint_id", "first_sent_at", "first_trigger_log_entry", "forced_color", "gravatar_id",
    "grouping_config", "hashes", "headers", "hook", "hook_id", "html", "html_body", "icon", "icon_emoji", "icons",
    "idempotency_key", "idempotencykey", "installation", "ip_address", "is_ext_shared_channel", "language_code",
    "lastviewed", "latitude", "livemode", "locale", "log_entries", "longitude", "mac", "md5", "modules",
    "network_transaction_id", "node_id", "nonce", "object_type", "outbound_integration", "parents", "password",
    "payment_method_details", "pending_actions", "pending_webhooks", "performed_via_github_app", "permissions",
    "permissionschemes", "position", "post_context", "pre_context", "prefs", "progress", "rank", "raw_html",
    "raw_post_data", "received", "request_id", "response_url", "scheduled_actions", "schema", "sdk", "secret",
    "session_hash", "sha256", "signature", "sort_order", "sortorder", "statement_descriptor", "statistics",
    "subscriberids", "subscription_ids", "thumbnails", "timetracking", "timezone_offset", "token", "tree_id",
    "trigger_id", "tz_offset", "user_agent", "user_view_type", "vars", "verification_token", "votes", "watches",
    "webhook", "webhook_id", "webhookid", "worklog", "workratio", "xmlns",
})  # fmt: skip
# What names a thing that is only mentioned: the container, the author, the account.
IDENTITY = frozenset({
    "code", "default_branch", "display_name", "displayid", "displayname", "email", "first_name", "full_name",
    "fullname", "handle", "hash", "html_url", "id", "iid", "key", "last_name", "login", "message", "name", "nickname",
    "number", "path_with_namespace", "phone", "priority", "private", "public_id", "real_name", "ref", "self_link",
    "sha", "slug", "state", "status", "summary", "tag_name", "title", "type", "username", "value", "wa_id", "web_url",
})  # fmt: skip
# Those of them that name it well enough to do without its id and type.
NAMES = frozenset({
    "display_name", "displayname", "full_name", "key", "login", "name", "nickname", "slug", "username",
})  # fmt: skip
# Things that are mentioned rather than the news, by the name that they stand under.
MENTIONED = frozenset({
    "account", "actor", "admin", "agent", "app", "assignee", "assignees", "author", "board", "bot", "channel", "client",
    "closed_by", "committer", "company", "components", "contacts", "created_by", "creator", "detailed_actor",
    "enterprise", "escalation_policy", "fixversions", "followers", "forkee", "group", "head_commit", "head_repository",
    "issuetype", "last_editor", "license", "list", "member", "membercreator", "members", "merged_by", "milestone",
    "model", "namespace", "organisation", "organization", "organizationmember", "owner", "parent", "participants",
    "plan", "priority", "product", "project", "pusher", "repo", "reporter", "repository", "requested_reviewers",
    "requester", "resolution", "reviewers", "sender", "service", "site", "source", "source_project", "status", "target",
    "target_project", "team", "teammates", "teams", "template", "triggering_actor", "updateauthor", "updated_by",
    "user", "versions", "watchers", "workspace",
})  # fmt: skip
# What is looked into inside a mentioned thing.
INSIDE_MENTION = frozenset({
    "author", "owner", "profile", "project", "user",
})  # fmt: skip
