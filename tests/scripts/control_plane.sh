#!/bin/bash
# The life of a function, typed with the aws command line: create, configure, publish, shift traffic and take it back,
# layers, policies, tags, pages, delete. Each answer is compared with what the service documents; the first that differs
# ends the script.
#
#   eval "$(fastlam env)"; tests/scripts/control_plane.sh
#
# The daemon must be a fresh one: numbers of versions are never given twice. Needs aws (either generation) and python3.
set -euo pipefail

export AWS_PAGER="" AWS_DEFAULT_OUTPUT=text
account=$AWS_ACCESS_KEY_ID
region=$AWS_DEFAULT_REGION
arn="arn:aws:lambda:$region:$account"
role="arn:aws:iam::$account:role/lambda-role"
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
steps=0

lambda() { aws lambda "$@"; }

# same WHAT EXPECTED ACTUAL: tabs between columns of aws's text output count as blanks.
same() {
    local actual=${3//$'\t'/ }
    if [ "$2" != "$actual" ]; then
        printf 'FAILED: %s\n  expected: %s\n  answered: %s\n' "$1" "$2" "$actual" >&2
        exit 1
    fi
    steps=$((steps + 1))
    printf 'ok  %s\n' "$1"
}

# refused CODE COMMAND...: the command must fail with this error.
refused() {
    local code=$1 said
    shift
    if said=$("$@" 2>&1); then
        printf 'FAILED: %s succeeded, %s was expected\n' "$*" "$code" >&2
        exit 1
    fi
    case $said in
        *"($code)"*) same "refused with $code" "$code" "$code" ;;
        *) same "refused with $code" "$code" "$said" ;;
    esac
}

# package FILE NAME: a zip FILE with standard input as its only file NAME.
package() { python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1], "w").writestr(sys.argv[2], sys.stdin.read())' "$@"; }

# executed QUALIFIER: the version that an invocation ran, and what it returned.
executed() {
    local version
    version=$(lambda invoke --function-name hello --qualifier "$1" --payload fileb://event.json answer.json --query ExecutedVersion)
    printf '%s %s' "$version" "$(cat answer.json)"
}

echo '{"name": "Ada"}' > event.json
package one.zip app.py <<'CODE'
import os
def handler(event, context):
    return "one " + os.environ.get("STAGE", "-")
CODE
package two.zip app.py <<'CODE'
import os
def handler(event, context):
    try:
        from words import GREETING
    except ImportError:
        GREETING = "two"
    return GREETING + " " + os.environ.get("STAGE", "-")
CODE
package layer_one.zip python/words.py <<< 'GREETING = "layered one"'
package layer_two.zip python/words.py <<< 'GREETING = "layered two"'
runtime=python$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# Create -----------------------------------------------------------------------------------------
same "create-function is answered before the function is there" \
    "hello $arn:function:hello Pending Creating \$LATEST 128 3" \
    "$(lambda create-function --function-name hello --runtime "$runtime" --role "$role" --handler app.handler \
        --zip-file fileb://one.zip --tags team=blue \
        --query '[FunctionName,FunctionArn,State,StateReasonCode,Version,MemorySize,Timeout]')"
lambda wait function-active-v2 --function-name hello
same "the waiter saw it become Active" "Active Successful" \
    "$(lambda get-function --function-name hello --query 'Configuration.[State,LastUpdateStatus]')"
refused ResourceConflictException aws lambda create-function --function-name hello --runtime "$runtime" --role "$role" \
    --handler app.handler --zip-file fileb://one.zip

# Configure --------------------------------------------------------------------------------------
same "update-function-configuration is under way" "InProgress 256 10 blue" \
    "$(lambda update-function-configuration --function-name hello --memory-size 256 --timeout 10 \
        --environment 'Variables={STAGE=blue}' --description 'the first' \
        --query '[LastUpdateStatus,MemorySize,Timeout,Environment.Variables.STAGE]')"
lambda wait function-updated-v2 --function-name hello
same "and then successful" "Successful the first" \
    "$(lambda get-function-configuration --function-name hello --query '[LastUpdateStatus,Description]')"

# Publish ----------------------------------------------------------------------------------------
same "publish-version" "1 $arn:function:hello:1 the first Active" \
    "$(lambda publish-version --function-name hello --query '[Version,FunctionArn,Description,State]')"
same "publishing without a change gives the same version" "1" \
    "$(lambda publish-version --function-name hello --description 'not another one' --query Version)"
lambda update-function-code --function-name hello --zip-file fileb://two.zip > /dev/null
lambda wait function-updated-v2 --function-name hello
lambda update-function-configuration --function-name hello --environment 'Variables={STAGE=green}' > /dev/null
lambda wait function-updated-v2 --function-name hello
refused InvalidParameterValueException aws lambda publish-version --function-name hello --code-sha256 wrong
same "publishing a change gives the next one" "2 the second" \
    "$(lambda publish-version --function-name hello --description 'the second' --query '[Version,Description]')"

# Aliases: 90/10, all of it, and back -------------------------------------------------------------
same "create-alias" "$arn:function:hello:live live 1 None" \
    "$(lambda create-alias --function-name hello --name live --function-version 1 \
        --query '[AliasArn,Name,FunctionVersion,RoutingConfig]')"
same "the alias runs version 1" '1 "one blue"' "$(executed live)"
revision=$(lambda get-alias --function-name hello --name live --query RevisionId)
same "update-alias to 90/10" "1 0.1" \
    "$(lambda update-alias --function-name hello --name live --routing-config 'AdditionalVersionWeights={2=0.1}' \
        --revision-id "$revision" --query '[FunctionVersion,RoutingConfig.AdditionalVersionWeights."2"]')"
refused PreconditionFailedException aws lambda update-alias --function-name hello --name live --function-version 2 \
    --revision-id "$revision"
for _ in 1 2 3; do
    case $(executed live) in
        '1 "one blue"' | '2 "two green"') ;;
        *) same "either version runs" "version 1 or 2" "$(executed live)" ;;
    esac
done
refused ResourceConflictException aws lambda delete-function --function-name hello --qualifier 2
same "shifted to 100" "2 None" \
    "$(lambda update-alias --function-name hello --name live --function-version 2 \
        --routing-config 'AdditionalVersionWeights={}' --query '[FunctionVersion,RoutingConfig]')"
same "the alias runs version 2" '2 "two green"' "$(executed live)"
same "rolled back" "1 None" \
    "$(lambda update-alias --function-name hello --name live --function-version 1 --query '[FunctionVersion,RoutingConfig]')"
same "the alias runs version 1 again" '1 "one blue"' "$(executed live)"
same "get-function through the alias names the alias and shows the version" "$arn:function:hello:live 1" \
    "$(lambda get-function --function-name hello:live --query 'Configuration.[FunctionArn,Version]')"

# Layers -----------------------------------------------------------------------------------------
same "publish-layer-version" "$arn:layer:words:1 1 first words" \
    "$(lambda publish-layer-version --layer-name words --zip-file fileb://layer_one.zip --description 'first words' \
        --compatible-runtimes "$runtime" --query '[LayerVersionArn,Version,Description]')"
same "the next layer version" "2" \
    "$(lambda publish-layer-version --layer-name words --zip-file fileb://layer_two.zip --query Version)"
same "a layer is attached" "$arn:layer:words:1" \
    "$(lambda update-function-configuration --function-name hello --layers "$arn:layer:words:1" --query 'Layers[].Arn')"
lambda wait function-updated-v2 --function-name hello
same "and imported" '$LATEST "layered one green"' "$(executed '$LATEST')"
same "the newer one" "$arn:layer:words:2" \
    "$(lambda update-function-configuration --function-name hello --layers "$arn:layer:words:2" --query 'Layers[].Arn')"
lambda wait function-updated-v2 --function-name hello
same "is imported, too" '$LATEST "layered two green"' "$(executed '$LATEST')"
refused InvalidParameterValueException aws lambda update-function-configuration --function-name hello \
    --layers "$arn:layer:words:7"
same "list-layers shows the newest" "words 2" \
    "$(lambda list-layers --query 'Layers[].[LayerName,LatestMatchingVersion.Version]')"
same "list-layer-versions, newest first" "2 1" \
    "$(lambda list-layer-versions --layer-name words --query 'LayerVersions[].Version')"
same "get-layer-version-by-arn" "1 first words $runtime" \
    "$(lambda get-layer-version-by-arn --arn "$arn:layer:words:1" \
        --query '[Version,Description,CompatibleRuntimes[0]]')"
same "delete-layer-version" "" "$(lambda delete-layer-version --layer-name words --version-number 2)"
same "a function goes on with a layer version that was deleted" '$LATEST "layered two green"' "$(executed '$LATEST')"
lambda update-function-configuration --function-name hello --layers > /dev/null
lambda wait function-updated-v2 --function-name hello
same "detached" 'None' "$(lambda get-function-configuration --function-name hello --query Layers)"

# Policies ---------------------------------------------------------------------------------------
statement='{"Sid":"bucket","Effect":"Allow","Principal":{"Service":"s3.amazonaws.com"},"Action":"lambda:InvokeFunction","Resource":"'$arn:function:hello:live'","Condition":{"ArnLike":{"AWS:SourceArn":"arn:aws:s3:::pictures"}}}'
same "add-permission" "$statement" \
    "$(lambda add-permission --function-name hello --qualifier live --statement-id bucket --principal s3.amazonaws.com \
        --action lambda:InvokeFunction --source-arn arn:aws:s3:::pictures --query Statement)"
same "get-policy" '{"Version":"2012-10-17","Id":"default","Statement":['"$statement"']}' \
    "$(lambda get-policy --function-name hello --qualifier live --query Policy)"
refused ResourceNotFoundException aws lambda get-policy --function-name hello
refused ResourceConflictException aws lambda add-permission --function-name hello --qualifier live --statement-id bucket \
    --principal s3.amazonaws.com --action lambda:InvokeFunction
same "remove-permission" "" "$(lambda remove-permission --function-name hello --qualifier live --statement-id bucket)"
refused ResourceNotFoundException aws lambda remove-permission --function-name hello --qualifier live --statement-id bucket

# Tags, concurrency ------------------------------------------------------------------------------
same "tag-resource" "" "$(lambda tag-resource --resource "$arn:function:hello" --tags stage=test,team=green)"
same "list-tags" "test green" \
    "$(lambda list-tags --resource "$arn:function:hello" --query 'Tags.[stage,team]')"
same "untag-resource" "" "$(lambda untag-resource --resource "$arn:function:hello" --tag-keys team)"
same "get-function shows the tags that are left" "test None" \
    "$(lambda get-function --function-name hello --query 'Tags.[stage,team]')"
same "put-function-concurrency" "5" \
    "$(lambda put-function-concurrency --function-name hello --reserved-concurrent-executions 5 \
        --query ReservedConcurrentExecutions)"
same "delete-function-concurrency" "" "$(lambda delete-function-concurrency --function-name hello)"
same "get-function-concurrency" "None" \
    "$(lambda get-function-concurrency --function-name hello --query ReservedConcurrentExecutions)"

# Pages of one -----------------------------------------------------------------------------------
lambda create-alias --function-name hello --name beta --function-version 2 > /dev/null
lambda create-function --function-name second --runtime "$runtime" --role "$role" --handler app.handler \
    --zip-file fileb://one.zip > /dev/null
same "list-versions-by-function in pages of one" "\$LATEST 1 2" \
    "$(echo $(lambda list-versions-by-function --function-name hello --page-size 1 --query 'Versions[].Version'))"
same "list-aliases in pages of one" "beta live" \
    "$(echo $(lambda list-aliases --function-name hello --page-size 1 --query 'Aliases[].Name'))"
same "list-functions in pages of one" "hello second" \
    "$(echo $(lambda list-functions --page-size 1 --query 'Functions[].FunctionName'))"
same "the first item alone, and where to go on" "hello" \
    "$(lambda list-functions --max-items 1 --query 'Functions[].FunctionName' | sed -n 1p)"

# Delete -----------------------------------------------------------------------------------------
same "delete-alias" "" "$(lambda delete-alias --function-name hello --name beta)"
same "delete a version that no alias needs any more" "204" "$(lambda delete-function --function-name hello --qualifier 2)"
same "what is left" "\$LATEST 1" \
    "$(lambda list-versions-by-function --function-name hello --query 'Versions[].Version')"
same "delete-function" "204" "$(lambda delete-function --function-name hello)"
refused ResourceNotFoundException aws lambda get-function --function-name hello
refused ResourceNotFoundException aws lambda invoke --function-name hello:live answer.json
same "delete-layer-version" "" "$(lambda delete-layer-version --layer-name words --version-number 1)"
same "delete-function, the second" "204" "$(lambda delete-function --function-name second)"
same "nothing is left" "" "$(lambda list-functions --query 'Functions[].FunctionName')"

printf '%s answers are as documented\n' "$steps"
